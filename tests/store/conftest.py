from tests.ledgers import shop
from tests.registries import driver, registry

__all__ = ["driver", "registry", "shop"]
