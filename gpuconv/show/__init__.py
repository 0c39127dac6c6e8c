"""What people look at: a run in progress in the terminal; a run, or several, as report, picture or table.

terminal  nothing, plain lines or a bar while a run goes on
words     times, settings and outcomes in words
compare   runs side by side
run       a run folder with its views: `gpuconv.train.Run`
html      report.html, styled by report.css
curves    the curves of a run, and as text
chart     a chart in SVG
filters   filters of a net as pictures
plots     curves by matplotlib
grid      pictures with what a net takes them for
drawing   how our notebooks draw
"""
