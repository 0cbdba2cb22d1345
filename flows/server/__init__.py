"""What commands ask of a Prefect server.

connection  The connection to a Prefect server, whose failures a person sees as two lines and not as a traceback.
dead_runs   Server automations that mark a run as crashed when nothing more is heard of its process.
decision    Send a person's answer to a run that waits for approval, without loading the code that computes a release.
deploy      Set up what a Prefect server lacks for releases: work pool, limit, automations, a deployment for each
            config.
probes      What the command `doctor` looks at on a Prefect server: whether it answers, its work pools and their
            workers.
shown       What a run shows to those who wait for it: what is to be approved, and what came out.
submit      Submit a release to a Prefect server and wait for its end, so that workflows and scripts can start releases.
waiting     Remove the notes of runs that were cancelled or deleted while they waited for an approval.
"""
