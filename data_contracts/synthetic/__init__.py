"""The synthetic network: a federation whose truth is known.

`settings` holds every number, `sites` spreads the payers' and providers' effects, `population`,
`review` and `outcomes` are the mechanism that `mechanism` runs chunk by chunk, `tables` and
`claims` turn a chunk into contract rows, `generate` writes them, `calibration` measures the result.

What nobody in the network would hold (severity, the true criteria, the reviewers' leniency and all
potential outcomes) is written apart, under `truth/`, and joins on `request_token`.
"""
