def limiter(*, quick): return []
def imports(*, quick): return []
