"""The log that nobody can rewrite: tree, checkpoints, cosignatures, proofs and judgement, pure (docs/specs/log.md)."""
