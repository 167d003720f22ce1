"""The errors that a user can cause and fix. Each says where it is, what is wrong, and what to do."""


class UserError(Exception):
    """A mistake that the user can fix; it is printed without a traceback."""

    def __init__(self, where: str, what: str, hint: str) -> None:
        """Keep the three parts; ``str`` joins them into one line.

        Args:
            where: The config key, file or step, such as ``data.root``.
            what: What is wrong there, with the offending value.
            hint: What to do now.
        """
        self.where, self.what, self.hint = where, what, hint
        super().__init__(where, what, hint)

    def __str__(self) -> str:
        hint = (self.hint[:1].upper() + self.hint[1:]).strip()
        return f"{self.where}: {self.what.rstrip('.')}. {hint}{'' if hint[-1] in '.?…' else '.'}"


class ConfigError(UserError):
    """A choice or a value in the config that cannot work; exit code 2."""


class DataError(UserError):
    """A file or a data set that cannot be used as it is; exit code 2."""


class RunError(UserError):
    """Something stopped a run before its end; what was done is kept. Exit code 1."""
