"""A caller's connections to the replicas of one model: which there are, and which one a call gets."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from actors.calls import replica_pool
from actors.calls.address import Address
from actors.calls.replica_pool import ReplicaPool
from actors.calls.server import CallServer
from actors.private_folder import PrivateFolder
from configs.errors import NoReplica
from tests.unit.actors.calls.conftest import ASKED, NODE, SAMPLING, Script, Served, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated attempts come at once."""
    for name in ("RECONNECT_S", "LOOK_S"):
        monkeypatch.setattr(replica_pool, name, 0.001)


class Pool:
    """A pool, and what it says."""

    def __init__(self) -> None:
        self.is_busy = False
        self.counts: list[int] = []
        self.pool = ReplicaPool("m", NODE, lambda: self.is_busy, self._note)

    def _note(self) -> None:
        self.counts.append(self.pool.count)

    async def has(self, count: int) -> None:
        """Wait until so many replicas can be called."""
        await until(lambda: self.pool.count == count)


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    said = Pool()
    yield said
    said.pool.close()


@pytest.fixture
async def replica() -> AsyncIterator[Callable[[], "asyncio.Future[Served]"]]:
    """Makes replicas, which end with the test."""
    async with AsyncExitStack() as stack:

        async def made() -> Served:
            folder, script = PrivateFolder(), Script()
            stack.callback(folder.remove)
            server = CallServer(script)
            stack.push_async_callback(server.drain, 0)
            served = Served(script, server, folder.path)
            await server.listen_unix(served.path)
            return served

        yield lambda: asyncio.ensure_future(made())


Replica = Callable[[], "asyncio.Future[Served]"]


async def test_calls_go_to_the_replica_with_the_fewest(pool: Pool, replica: Replica) -> None:
    one, two = await replica(), await replica()
    pool.pool.update({"one": one.near, "two": two.near})
    await pool.has(2)
    calls = []
    for _ in range(10):
        connection = await pool.pool.choose()
        calls.append(asyncio.create_task(connection.complete(ASKED, SAMPLING, None)))
        await asyncio.sleep(0)
    chosen = Counter(c.in_flight for c in pool.pool._connections.values())
    assert chosen == {5: 2}
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_no_call_waits_for_a_model_without_replicas(pool: Pool) -> None:
    pool.pool.update({})
    with pytest.raises(NoReplica, match="'m'"):
        await pool.pool.choose()


async def test_a_call_waits_for_a_replica_that_was_just_noticed(pool: Pool, replica: Replica) -> None:
    one = await replica()
    pool.pool.update({"one": one.near})
    assert await (await pool.pool.choose()).count_tokens(ASKED) == 5


async def test_a_replica_that_cannot_be_reached_is_no_replica_after_a_moment(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_pool, "WAIT_S", 0.01)
    pool.pool.update({"one": Address(NODE, str(tmp_path / "nobody"))})
    with pytest.raises(NoReplica):
        await pool.pool.choose()


async def test_a_lost_replica_gets_no_call_and_is_reached_again(pool: Pool, replica: Replica) -> None:
    one, two = await replica(), await replica()
    pool.pool.update({"one": one.near, "two": two.near})
    await pool.has(2)
    lost = pool.pool._connections["one"]
    lost.close()
    await until(lambda: lost.is_lost)
    assert await pool.pool.choose() is pool.pool._connections["two"]
    await pool.has(2)
    assert pool.pool._connections["one"] is not lost
    assert pool.counts == [1, 2, 1, 2]


async def test_a_replica_that_ends_every_connection_is_not_reached_again_at_once(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_pool, "RECONNECT_S", 60)
    accepted = 0

    def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        writer.close()

    folder = PrivateFolder()
    async with await asyncio.start_unix_server(refuse, folder.path / "calls"):
        pool.pool.update({"one": Address(NODE, str(folder.path / "calls"))})
        await pool.has(1)
        await pool.has(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert accepted == 1
        assert list(pool.pool._connecting) == ["one"]
    folder.remove()


async def test_a_replica_that_serve_no_longer_names_stays_while_it_is_there(
    pool: Pool, replica: Replica
) -> None:
    """A controller that has just restarted may name no replica at first."""
    one = await replica()
    pool.pool.update({"one": one.near})
    await pool.has(1)
    pool.pool.update({})
    assert await (await pool.pool.choose()).count_tokens(ASKED) == 5
    (await pool.pool.choose()).close()
    await pool.has(0)
    with pytest.raises(NoReplica):
        await pool.pool.choose()


async def test_a_replica_that_leaves_finishes_its_calls_and_gets_no_new_ones(
    pool: Pool, replica: Replica
) -> None:
    one, two = await replica(), await replica()
    pool.pool.update({"one": one.near})
    await pool.has(1)
    pool.is_busy = True
    asking = asyncio.create_task((await pool.pool.choose()).complete(ASKED, SAMPLING, None))
    await one.script.began.wait()
    draining = asyncio.create_task(one.server.drain(60))
    await until(lambda: any(c.is_leaving for c in pool.pool._connections.values()))
    pool.pool.update({"two": two.near})
    await pool.has(1)
    for _ in range(20):
        assert not (await pool.pool.choose()).is_leaving
    assert not draining.done()
    one.script.end()
    assert (await asking).last
    await draining


async def test_the_only_replica_serves_on_while_answers_need_it(pool: Pool, replica: Replica) -> None:
    one = await replica()
    pool.pool.update({"one": one.near})
    await pool.has(1)
    pool.is_busy = True
    assert await (await pool.pool.choose()).count_tokens(ASKED) == 5  # the replica knows the caller
    draining = asyncio.create_task(one.server.drain(60))
    await until(lambda: any(c.is_leaving for c in pool.pool._connections.values()))
    assert pool.pool.count == 0
    for _ in range(5):
        assert await (await pool.pool.choose()).count_tokens(ASKED) == 5
        await asyncio.sleep(0.002)
    assert not draining.done()
    pool.is_busy = False
    await draining
