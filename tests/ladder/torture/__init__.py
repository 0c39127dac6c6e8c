"""What gpuconv is put through that users' days do not bring: kills, damage, full disks, interrupts, hostile files, chance.

One file per kind of harm, each with `KINDS`; README.md of the folder above says how they are run.
"""
