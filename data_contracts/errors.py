"""The root of every error that a user can cause and mend, and errors with several raisers."""


class GroundTruthError(Exception):
    """Something that the reader of the message can put right.

    The message is one clear sentence or two: what happened, where, and what to do next. It never
    holds a value from a site's data. The command line prints it and exits with code 2.
    """


class ManifestError(GroundTruthError):
    """A site.toml, or the description of a network, is missing or cannot be understood."""
