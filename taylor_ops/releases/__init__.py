"""What is known of finished releases: records, gates, comparison, report, and what may be removed.

comparison  Two releases beside each other, gate by gate.
gates       The gates of a release side by side: verdict, what was found and required, for tables that help a person
            decide.
headlines   What came out of a release: the sentence with which everything about it begins, and the lines with
            which it ends.
index       What the artifacts folder holds of releases: all runs, which of them are published, when, and their records.
index_page  The page of all releases: `index.html` of the artifacts folder, one self-contained file with links to the
            reports.
markdown    A release in Markdown, as job summaries and the Prefect UI show it.
overview    One line of the list of releases: a run in the artifacts folder, with its figures if it was finished.
record      The record of a whole release, as `release.json` keeps it and the report shows it.
recording   Put the record of a release together from the records of its stages.
report      The report of a release: one self-contained HTML file with its plots.
retention   Remove old runs and caches from the artifacts folder, but nothing that was published or that a run still
            needs.
waiting     Notes of runs that wait for approval, which keep the stages that these runs will need.
"""
