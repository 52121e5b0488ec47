"""What else did a narrow fine-tuning do to a language model?"""
