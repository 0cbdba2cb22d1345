"""Stage `publish`: show a bundle on the Hub or in a folder, whole or not at all, and withdraw it.

hub             Publish a bundle on the Hub: a reader of `main` or of a tag sees the release before or all of this
                one.
hub_errors      What the Hub refuses, in words: what passes by itself, and what a person has to change.
hub_fetch       Bring what is published on the Hub to this machine, to verify it as any reader gets it.
hub_repository  One repository on the Hub, seen by one account: what is there, asked patiently, with errors for a
                person.
publish         Publish a bundle, whole or not at all: into a folder, or on the Hub.
record          Where a bundle was published: the record of it, and the errors that speak of it.
retries         How long the Hub is waited for: what passes by itself is tried again, more and more rarely, within
                a budget.
withdraw        Withdraw a version from the Hub: its tag goes, its card and manifest say so, and `main` may show
                the one before.
"""
