"""Reports, before a long run, what it will use, leave out and convert. Printed by `persistworld check` and by the stage `episodes`."""
