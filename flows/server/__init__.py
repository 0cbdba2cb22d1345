"""What commands ask of a Prefect server.

connection  The Prefect server as commands see it: one that does not answer is two lines for a person, not a traceback.
dead_runs   The automations of the server that mark a run as crashed when its process is heard of no more.
decision    A person's answer to a run that waits for approval. It loads nothing that a release computes with.
deploy      Set up what a Prefect server lacks for releases: work pool, limit, automation, one deployment for each
            config.
submit      Submit a release to a Prefect server and wait for its end: what a workflow or a script does in place of
            clicking.
waiting     Runs that waited for an approval and ended without one: cancelled, or deleted, they take no note away
            themselves.
"""
