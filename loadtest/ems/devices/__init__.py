"""Programs that a scenario controls; each is a process of its own, since their libraries run on asyncio."""
