"""The voice cache's policy as scenarios."""

from ttsfleet_runtime.errors import ErrorInfo
from ttsfleet_runtime.router.voice_cache import VoiceCache


def _filled(capacity: int, *hashes: str) -> VoiceCache:
    cache = VoiceCache(capacity)
    for voice_hash in hashes:
        cache.acquire(voice_hash, "k")
        cache.computed(voice_hash, 10, None)
        cache.release(voice_hash, "k")
    return cache


def test_only_the_first_of_many_requests_computes_a_voice() -> None:
    cache = VoiceCache(4)
    assert cache.acquire("v", "a") is None
    assert cache.acquire("v", "b") is False
    waiters, evicted = cache.computed("v", 12, None)
    assert (waiters, evicted) == (["a", "b"], [])
    assert cache.acquire("v", "c") is True
    assert cache.num_tokens("v") == 12


def test_the_least_recently_used_entry_is_evicted_first() -> None:
    cache = _filled(2, "old", "new")
    cache.acquire("old", "k")
    cache.release("old", "k")
    cache.acquire("third", "k")
    _, evicted = cache.computed("third", 1, None)
    assert evicted == ["new"]


def test_an_entry_in_use_is_not_evicted_until_it_is_released() -> None:
    cache = VoiceCache(1)
    for voice_hash in ("a", "b"):
        cache.acquire(voice_hash, voice_hash)
        assert cache.computed(voice_hash, 1, None) == ([voice_hash], [])
    assert cache.release("b", "b") == ["b"]
    assert cache.has("a")


def test_a_pinned_entry_is_never_evicted() -> None:
    cache = VoiceCache(0)
    cache.pin("builtin", 5)
    assert cache.drop_unused() == []
    assert cache.acquire("builtin", "k") is True


def test_a_failed_computation_stores_nothing_and_names_all_who_waited() -> None:
    cache = VoiceCache(4)
    cache.acquire("v", "a")
    cache.acquire("v", "b")
    waiters, _ = cache.computed("v", 0, ErrorInfo(code="bad", message="bad"))
    assert waiters == ["a", "b"]
    assert cache.acquire("v", "c") is None


def test_a_request_that_leaves_while_its_voice_is_computed_is_forgotten() -> None:
    cache = VoiceCache(4)
    cache.acquire("v", "a")
    cache.release("v", "a")
    assert cache.computed("v", 3, None) == ([], [])
    assert cache.drop_unused() == ["v"]
