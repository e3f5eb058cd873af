"""A model's weights outside the trainer: safetensors shards, the folders of transformers, model cards."""
