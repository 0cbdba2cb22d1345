"""What a release does to a model: read, expand, convert, measure, attack, bundle, publish. Knows no orchestrator."""
