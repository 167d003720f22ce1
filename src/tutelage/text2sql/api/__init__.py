"""A client of any server that speaks OpenAI's protocol: for exploring, and for answering."""
