"""How the bundled models were made: corpus, tokenizer, training, card. Nothing imports from here."""
