"""Stage `publish`: show a bundle on the Hub or in a folder, whole or not at all, and withdraw it.

hub             Publish a bundle on the Hub: a reader of `main` or of a tag sees the release before, or all of this one.
hub_errors      Errors of the Hub: which of them pass by themselves, and what a person has to change about the others.
hub_fetch       Fetch a published bundle from the Hub, to verify it as any reader gets it.
hub_repository  Read and change one repository on the Hub as one account, with retries and with errors for a person.
publish         Publish a bundle into a folder or on the Hub, whole or not at all.
record          The record of a publication, and the errors about it.
retries         Repeat requests to the Hub after errors that pass by themselves, at growing intervals and within a
                budget.
withdraw        Withdraw a version from the Hub: remove its tag, say so on card and manifest, and show the version
                before on request.
"""
