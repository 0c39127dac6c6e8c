"""What people look at: a run in progress in the terminal; a run, or several, as report, picture or table.

terminal  nothing, plain lines or a bar while a run goes on; in a notebook, too
words     times, settings and outcomes in words
compare   runs side by side
sides     recipes side by side, means of several seeds
run       a run folder with its views: `gpuconv.train.Run`
html      report.html, styled by report.css
index     index.html: all runs of a folder
listing   the same in the terminal
curves    the curves of a run
chart     a chart in SVG
filters   filters of a net as pictures
canvas    a chart in letters
screen    the charts of a run as they fit into a terminal
plots     curves by matplotlib
grid      pictures with what a net takes them for
drawing   how our notebooks draw
"""
