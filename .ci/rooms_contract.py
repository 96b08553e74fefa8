"""An import-linter contract that holds the table of rooms: who may import whom.

The table stands in .importlinter, one room a line: `name: the rooms that it may import`. A room is a module or a
package of kvlp; of two that match, the longer name counts, so `eval.metrics` is not `eval`. Every import is judged,
those inside functions and under TYPE_CHECKING too.
"""

from __future__ import annotations

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output

ROOT = "kvlp"


def parse_rooms(lines: list[str]) -> dict[str, set[str]]:
    """Read the lines `room: room @group *` into a table of full module names; `*` stands for every room."""
    pairs = {room.strip(): allowed.split() for room, _, allowed in (line.partition(":") for line in lines)}
    groups = {name: set(rooms) for name, rooms in pairs.items() if name.startswith("@")}
    rooms = [name for name in pairs if not name.startswith("@")]
    table = {name: set[str]().union(*(groups.get(word, {word}) for word in pairs[name])) for name in rooms}
    table = {name: set(rooms) if "*" in allowed else allowed for name, allowed in table.items()}
    unknown = set[str]().union(*table.values()) - set(rooms)
    if unknown:
        raise ValueError(f".importlinter names rooms that it does not list: {', '.join(sorted(unknown))}")
    return {f"{ROOT}.{name}": {f"{ROOT}.{word}" for word in allowed} for name, allowed in table.items()}


def room_of(module: str, rooms: dict[str, set[str]]) -> str | None:
    """Return the room with the longest name that holds `module`; None for the root package or an unlisted room."""
    homes = [room for room in rooms if module == room or module.startswith(f"{room}.")]
    return max(homes, key=len, default=None)


def violations(graph: ImportGraph, rooms: dict[str, set[str]], everyone: set[str]) -> list[str]:
    """List each module without a room, and each import that the table does not allow, with its line."""
    found = []
    for module in sorted(graph.modules - {ROOT}):
        home = room_of(module, rooms)
        if home is None:
            found.append(f"{module} is in no room: add it to the table in .importlinter")
            continue
        for target in sorted(graph.find_modules_directly_imported_by(module) - {ROOT}):
            other = room_of(target, rooms)
            allowed = rooms[home] | everyone | {home}
            if other is None or other in allowed:
                continue
            detail = graph.get_import_details(importer=module, imported=target)
            line = detail[0]["line_number"] if detail else "?"
            found.append(f"{module}:{line} imports {target}; room {home} may not import room {other}")
    return found


class RoomsContract(Contract):
    """Every import between rooms is one that the table names."""

    type_name = "rooms"

    rooms = fields.ListField(subfield=fields.StringField())
    everyone_may_import = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: FBT001  import-linter's own signature
        """Judge the whole graph of imports."""
        table = parse_rooms(self.rooms)
        found = violations(graph, table, {f"{ROOT}.{name}" for name in self.everyone_may_import})
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print one line for each violation."""
        for line in check.metadata["found"]:
            output.print_error(line)
        output.new_line()
