"""Classes with one instance each, which another object may stand in for."""

from typing import Any


class SingletonMetaclass(type):
    """Keeps the one instance of each class. A subclass has its own; arguments of later calls are ignored."""

    _instances: dict[type, Any] = {}

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.get_instance(*args, **kwargs)

    def get_instance(cls, *args: Any, **kwargs: Any) -> Any:
        """The instance, made with the given arguments when there is none yet."""
        instances = SingletonMetaclass._instances
        if cls not in instances:
            instances[cls] = super().__call__(*args, **kwargs)
        return instances[cls]

    def inject_instance(cls, instance: Any) -> None:
        """Let *instance* answer for the class, such as a proxy to another process. ``RuntimeError`` once there is an instance."""
        if cls in SingletonMetaclass._instances:
            raise RuntimeError(f"{cls.__name__} is in use already; inject its stand-in before the first {cls.__name__}()")
        SingletonMetaclass._instances[cls] = instance


class ProxiedSingleton(metaclass=SingletonMetaclass):
    """Base of the classes that make up the API."""
