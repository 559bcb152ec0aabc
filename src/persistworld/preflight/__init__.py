"""What a run will use, leave out and convert, told before hours are spent: printed by `persistworld check` and by the stage `episodes`."""
