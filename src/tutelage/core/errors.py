"""The two errors a user can cause. Each says where, what, and the way out."""


class UserError(Exception):
    """A mistake that the user can mend; printed without a traceback."""

    def __init__(self, where: str, what: str, way_out: str) -> None:
        """Say it in one line.

        Args:
            where: The config key, file or step, such as ``data.root``.
            what: What is wrong there, with the offending value.
            way_out: What to do now.
        """
        self.where, self.what, self.way_out = where, what, way_out
        super().__init__(where, what, way_out)

    def __str__(self) -> str:
        way_out = (self.way_out[:1].upper() + self.way_out[1:]).strip()
        return f"{self.where}: {self.what.rstrip('.')}. {way_out}{'' if way_out[-1] in '.?…' else '.'}"


class ConfigError(UserError):
    """A choice or a value that cannot work."""


class DataError(UserError):
    """A file or a data set that is not what it should be."""


class RunError(UserError):
    """Something that stopped a run half-way; what was done is kept."""
