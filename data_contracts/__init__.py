"""What a site's tables must look like, and how raw data becomes one.

Every error a user can cause derives from `GroundTruthError` and says what happened, where,
and what to do next:

    GroundTruthError
    ├── ManifestError           site.toml is missing, misspelt or names no table
    ├── ReaderError             a file is missing, empty or not what its name says
    ├── UnknownColumnError      the de-identification gate met a column that no contract knows
    ├── IdentifierError         values of a table look like identifiers of somebody
    ├── PolicyError             the legal ground is missing, contradictory or has expired
    ├── ContractViolationError  a table breaks its contract
    ├── LeakError               a feature is known only after the prediction is made
    ├── RiskLibraryMissingError risk scores are asked for where their library is not installed
    └── FetchError              a public data set could not be fetched or is not the pinned one
"""
