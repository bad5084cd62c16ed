"""The applications under test: the same trivial handler behind different gates."""
