"""What a repo's files are called in an output folder, in each layout (pure functions)."""

from __future__ import annotations

import hashlib

from distributed_downloader.models import JobSpec, Layout, RepoFile


def folder_of(spec: JobSpec) -> str:
    """Return the folder that is the repo's alone, below the output folder.

    `org/name`, or for `hf-cache` huggingface_hub's `models--org--name` (file_download.repo_folder_name).
    """
    if spec.layout is Layout.HF_CACHE:
        return "--".join([f"{spec.repo_type.value}s", *spec.repo_id.split("/")])
    return spec.repo_id


def shown_folder(spec: JobSpec) -> str:
    """Return the folder that has the repo's files under their own paths, below the output folder."""
    shown = f"/snapshots/{spec.commit}" if spec.layout is Layout.HF_CACHE else ""
    return folder_of(spec) + shown


def file_of(spec: JobSpec, file: RepoFile) -> str:
    """Return where a file's bytes lie, below the output folder.

    In `hf-cache` that is the blob, by the hash that huggingface_hub knows it by (its ETag), or by a digest of
    our own where the hub told none.
    """
    if spec.layout is Layout.HF_CACHE:
        return f"{folder_of(spec)}/blobs/{file.sha256 or file.git_sha1 or digest_of(spec, file)}"
    return f"{spec.repo_id}/{file.path}"


def digest_of(spec: JobSpec, file: RepoFile) -> str:
    """Return what names the file and its commit, for what lies elsewhere until it is complete."""
    key = "\0".join((spec.repo_type.value, spec.repo_id, spec.commit, file.path))
    return hashlib.sha256(key.encode()).hexdigest()[:32]
