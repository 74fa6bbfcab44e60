"""The claims of Zhang et al. (2022) as statistics of a run's records, each with an interval and a verdict."""
