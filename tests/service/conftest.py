from tests.registries import driver, registry

__all__ = ["driver", "registry"]
