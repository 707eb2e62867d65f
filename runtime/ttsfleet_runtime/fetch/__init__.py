"""`ttsfleet-runtime fetch`: gets a model, or checks a mounted one, before the runtime starts.

    command     flags, exit code, termination message
    pipeline    the sequence of one fetch, as prose
    config      fetch.yaml
    sources/    what a source consists of: an archive, a bucket, a repository of a hub
    download    one file, resumed and verified
    transport   HTTP: addresses, redirects, proxies, retries
    cache       the finished directory, the unfinished one beside it, the swap
    manifest    the list of a model's files and its digest

Nothing here imports torch or anything else of the runtime but its errors, so that a start with the model in place
takes a fraction of a second.
"""
