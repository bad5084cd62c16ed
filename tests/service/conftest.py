from tests.ledgers import second, shop
from tests.registries import driver, registry

__all__ = ["driver", "registry", "second", "shop"]
