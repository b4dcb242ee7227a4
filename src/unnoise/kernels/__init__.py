"""Small computations that many networks share, each by the route that is fast where it runs."""
