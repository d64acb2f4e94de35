"""What a device check found: numbers with the bounds that they must keep."""

from dataclasses import dataclass, field

Numbers = dict[str, float]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        label: what was measured; no two lines of a section share it.
        numbers: by name.
        most: the largest allowed value of some of them.
        least: the smallest allowed value of some of them.
        note: what else there is to say: why it could not be measured, warnings.
        failed: it could not be measured because something is wrong.
    """

    label: str
    numbers: Numbers = field(default_factory=dict)
    most: Numbers = field(default_factory=dict)
    least: Numbers = field(default_factory=dict)
    note: str = ""
    failed: bool = False

    @property
    def broken(self) -> list[str]:
        """The bounds that are not kept, in words; a number that is none keeps no bound."""
        over = [f"{name} > {bound:g}" for name, bound in self.most.items() if not self.numbers[name] <= bound]
        under = [f"{name} < {bound:g}" for name, bound in self.least.items() if not self.numbers[name] >= bound]
        return over + under

    @property
    def passed(self) -> bool | None:
        """None for a line that nothing was asked of."""
        if self.failed or self.broken:
            return False
        return True if self.most or self.least else None
