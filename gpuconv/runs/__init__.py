"""What a run leaves on the disk, written and read; nothing here trains.

folder        the folder of a run, and which files it holds
config        the settings: one dataclass
recipes       the presets
settings      settings by name and on disk: presets, config.toml
inputs        what a net takes and what its scores mean
checkpoint    a run at one moment, to and from a file: weights, optimiser, position
sealed        the format of that file
journal       events.jsonl: what happened when
board         TensorBoard's file
metrics       metrics.csv: a line per epoch
result        result.json: what a finished run came to
machine       env.json: what it was measured on
reading       all of this, read
overview      all runs of a folder, in a few words each
dataset       the data set of a run, found again
evaluation    how well a net does on pictures
prediction    what a net takes pictures for
significance  what of a difference can be chance
"""
