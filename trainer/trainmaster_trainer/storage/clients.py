"""The connection behind a store: opened when it is first used, and kept for every store of the same configuration."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from obstore.store import LocalStore, S3Store

from trainmaster_trainer.errors import StorageDenied

from .errors import bad_key

if TYPE_CHECKING:
    from .store import Store


def client(store: Store) -> S3Store | LocalStore:
    """Return the connection of a store, in this process. Raises StorageDenied for keys that can't be right."""
    found = _CLIENTS.get(store)
    if found is None:
        found = _CLIENTS[store] = _open(store)
    return found


def _open(store: Store) -> S3Store | LocalStore:
    if not store.is_s3:
        store.root.mkdir(parents=True, exist_ok=True)
        return LocalStore(store.root)
    wrong = bad_key(store.access_key, store.secret_key, store.session_token)
    if wrong:
        raise StorageDenied(f"bucket {store.bucket} at {store.where} can't be opened: {wrong}")
    # what isn't given is left out: the library takes no None
    keys: dict[str, Any] = {"endpoint": store.endpoint.rstrip("/")} if store.endpoint else {}
    if store.access_key:
        keys |= {"access_key_id": store.access_key, "secret_access_key": store.secret_key}
        keys |= {"session_token": store.session_token} if store.session_token else {}
    return S3Store(
        store.bucket,
        prefix=store.address.path or None,
        region=store.region,
        virtual_hosted_style_request=False,
        client_options={
            "allow_http": True,
            "connect_timeout": timedelta(seconds=5),
            "timeout": timedelta(seconds=120),
        },
        # our own loop is the patient one: it knows which answers are final
        retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=10)},
        **keys,
    )


_CLIENTS: dict[Store, S3Store | LocalStore] = {}
