"""What is known of finished releases: records, gates, comparison, report, and what may be removed.

comparison  Two releases beside each other, gate by gate.
gates       The gates of a release beside each other: what was promised, what was found; for tables that a person
            decides by.
index       What the artifacts folder knows of releases: which runs are there, which are published, when, with which
            record.
markdown    A release in Markdown: what a job summary and the Prefect UI show of it.
record      The record of a whole release, as `release.json` keeps it and the report shows it.
recording   Put the record of a release together from what its stages left.
report      The report of a release: one HTML file that needs nothing else, with the plots inside.
retention   Old runs and caches: what may go from the artifacts folder. Never what was published, or what a run still
            needs.
waiting     Notes of runs that wait for approval: what they will go on with must stay.
"""
