"""Classes with one instance each, which another object may replace."""

from typing import Any


class SingletonMetaclass(type):
    """Keeps the one instance of each class. Subclasses have their own; the arguments of later calls are ignored."""

    _instances: dict[type, Any] = {}

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.get_instance(*args, **kwargs)

    def get_instance(cls, *args: Any, **kwargs: Any) -> Any:
        """The instance; the first call makes it with the given arguments."""
        instances = SingletonMetaclass._instances
        if cls not in instances:
            instances[cls] = super().__call__(*args, **kwargs)
        return instances[cls]

    def inject_instance(cls, instance: Any) -> None:
        """Use *instance* for the class, such as a proxy to another process. Raises ``RuntimeError`` if there is an instance already."""
        if cls in SingletonMetaclass._instances:
            raise RuntimeError(f"{cls.__name__} is in use already; inject its stand-in before the first {cls.__name__}()")
        SingletonMetaclass._instances[cls] = instance


class ProxiedSingleton(metaclass=SingletonMetaclass):
    """Base of the classes that make up the API."""
