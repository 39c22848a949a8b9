"""Ray Serve's router for the servers: which replica a request goes to is decided by the fleet's dispatcher in the same process."""

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from fleet.messages import SentJob


class FleetRouter(RequestRouter):
    """Jobs go where the dispatcher says; while it says nothing, Ray asks again."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        # Serve carries a copy of this class with all that it refers to; only what is imported here is this process's own.
        from fleet.on_ray.placement import placement

        if pending_request is None or not pending_request.args:
            return []
        pending_request.routing_context.should_backoff = True
        sent = pending_request.args[0]
        by_id = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        chosen = await placement.decide(sent, by_id.keys()) if isinstance(sent, SentJob) else None
        return [[by_id[chosen]]] if chosen in by_id else []
