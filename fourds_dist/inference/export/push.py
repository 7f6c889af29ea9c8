"""Push of an exported student to a repository of the Hugging Face hub, in one commit, with all checks beforehand."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fourds_dist.inference.export.formats import FILES
from fourds_dist.inference.export.model_card import CARD, MADE_BY
from fourds_dist.io.error_text import one_line
from fourds_dist.io.extras import fix
from fourds_dist.models.hub import (
    endpoint,
    first_cause,
    is_repository,
    page_of,
    reason_of,
    repository_of,
    status_of,
)

TOKENS = "https://huggingface.co/settings/tokens"

_LATENCY = re.compile(r"\b\d+\.\d ms\b")
_FRONT_MATTER = re.compile(r"---\n.*?\n---\n", re.DOTALL)


@dataclass(frozen=True)
class Destination:
    """A repository of the hub that a student is pushed to.

    Args:
        name: owner/name.
        branch: None: the main branch.
        is_private: whether a new repository is private.
    """

    name: str
    branch: str | None
    is_private: bool

    @classmethod
    def of(cls, text: str, *, is_private: bool) -> Destination:
        """Return the destination of `hf://owner/name` or `hf://owner/name@branch`.

        Raises:
            ValueError: no name of a repository.
        """
        name, _, branch = repository_of(text).partition("@")
        wrong = f"--push {text}: give hf://owner/name or hf://owner/name@branch"
        if not is_repository(text) or name.count("/") != 1 or text.rstrip("/").endswith("@"):
            raise ValueError(wrong)
        with _hub(text):
            from huggingface_hub.errors import HFValidationError
            from huggingface_hub.utils import validate_repo_id

            try:
                validate_repo_id(name)
            except HFValidationError as error:
                raise ValueError(f"{wrong} ({one_line(error)})") from None
        return cls(name, branch or None, is_private)

    @property
    def url(self) -> str:
        """The spelling that `load_student` reads."""
        return f"hf://{self.name}" + (f"@{self.branch}" if self.branch else "")


def check_push(destination: Destination) -> None:
    """Check that the student can be pushed, without writing to the hub.

    Raises:
        ValueError: no network, no token, a token that may not write, or a repository with another README.md.
    """
    where = f"--push {destination.url}"
    with _hub(where, destination.name):
        from huggingface_hub import HfApi, constants
        from huggingface_hub.errors import LocalTokenNotFoundError, RepositoryNotFoundError

        if constants.HF_HUB_OFFLINE:
            raise ValueError(f"{where}: HF_HUB_OFFLINE is set; unset it to push")
        api = HfApi()
        try:
            account = api.whoami()
        except LocalTokenNotFoundError:
            raise ValueError(
                f"{where}: there is no token; set HF_TOKEN to a token that may write ({TOKENS}), or run `hf auth login`"
            ) from None
        _check_rights(account, destination, where)
        try:
            is_public = not api.repo_info(destination.name).private
        except RepositoryNotFoundError:
            return
        if destination.is_private and is_public:
            raise ValueError(
                f"{where}: the repository exists and is public; make it private at "
                f"{page_of(destination.name)}/settings, or leave out --private"
            )
        text = _card_of(api, destination)
        if text is not None and MADE_BY not in text and _FRONT_MATTER.sub("", text, count=1).strip():
            raise ValueError(
                f"{where}: {CARD} of the repository is no model card of fourds_dist; give another repository or branch"
            )


def push(folder: Path, destination: Destination) -> str | None:
    """Push the files of an export in one commit; older files of a student that are not in the folder are removed.

    Latencies in the card differ between exports; a card that differs in nothing else is not pushed.

    Returns:
        URL of the commit; None: the repository has these files already.

    Raises:
        ValueError: the hub refuses the files, or cannot be reached.
    """
    name, branch = destination.name, destination.branch
    with _hub(f"--push {destination.url}", name), _without_messages():
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

        api = HfApi()
        api.create_repo(name, private=destination.is_private or None, exist_ok=True)
        if branch is not None:
            api.create_branch(name, branch=branch, exist_ok=True)
        before = _card_of(api, destination)
        card = folder / CARD
        if before is not None and _LATENCY.sub("", before) == _LATENCY.sub("", card.read_text("utf-8")):
            card.write_text(before, "utf-8", newline="")
        files = sorted(path for path in folder.iterdir() if path.is_file())
        stale = {*FILES.values(), CARD} - {path.name for path in files}
        removed = stale & set(api.list_repo_files(name, revision=branch))
        commit = api.create_commit(
            name,
            [
                *(CommitOperationAdd(path.name, str(path)) for path in files),
                *(CommitOperationDelete(file) for file in sorted(removed)),
            ],
            commit_message="Student of fourds_dist",
            revision=branch,
            parent_commit=(parent := api.repo_info(name, revision=branch).sha),
        )
        return None if commit.oid == parent else commit.commit_url


def _card_of(api: Any, destination: Destination) -> str | None:
    """Return the text of the repository's README.md; None: it has none, or no such branch."""
    from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError

    try:
        path = api.hf_hub_download(destination.name, CARD, revision=destination.branch)
    except (EntryNotFoundError, RevisionNotFoundError):
        return None
    return Path(path).read_bytes().decode(errors="replace")


def _check_rights(account: Mapping[str, Any], destination: Destination, where: str) -> None:
    """Check by the hub's description of the account and its token that the token may write to the repository."""
    user = str(account.get("name", ""))
    owner = destination.name.partition("/")[0].lower()
    organisations = {str(org.get("name", "")).lower(): org for org in account.get("orgs") or ()}
    if owner != user.lower() and owner not in organisations:
        names = ", ".join([user, *(str(org.get("name")) for org in organisations.values())])
        raise ValueError(
            f"{where}: the token's account is {user}, which may not write to {owner}; give hf://OWNER/NAME with OWNER "
            f"among {names}, or set HF_TOKEN to a token of another account"
        )
    if organisations.get(owner, {}).get("roleInOrg") == "read":
        raise ValueError(
            f"{where}: {user} may only read in {owner}; ask its administrator for the role `write`"
        )
    token = (account.get("auth") or {}).get("accessToken") or {}
    if token.get("role") == "read" or (
        token.get("role") == "fineGrained"
        and not _may_write(token.get("fineGrained") or {}, destination.name.lower())
    ):
        raise ValueError(
            f"{where}: the token {token.get('displayName', '')!r} may not write to {destination.name}; set HF_TOKEN to "
            f"a token of the type `write`, or give this token write access to {owner} ({TOKENS})"
        )


def _may_write(rights: Mapping[str, Any], name: str) -> bool:
    """Return whether a fine-grained token may write to a repository."""
    names = (name, name.partition("/")[0])
    return any(
        str(scope.get("entity", {}).get("name", "")).lower() in names
        and "repo.write" in scope.get("permissions", ())
        for scope in rights.get("scoped") or ()
    )


@contextmanager
def _hub(where: str, name: str = "") -> Iterator[None]:
    """Give errors of the hub within the context a message of one line with the remedy."""
    try:
        from huggingface_hub.errors import (
            GatedRepoError,
            HTTPError,  # pyright: ignore[reportPrivateImportUsage]
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise ValueError(f"{where} needs huggingface_hub ({error}): {fix('hub')}") from None
    try:
        yield
    except (OSError, HTTPError) as error:
        cause = first_cause(error)
        status = status_of(error) or status_of(cause)
        if isinstance(error, GatedRepoError):
            remedy = f"the repository is gated; accept its conditions at {page_of(name)}"
        elif isinstance(error, RevisionNotFoundError):
            remedy = f"the repository has no such branch; see {page_of(name)}/tree/main"
        elif status == 401 and not isinstance(error, RepositoryNotFoundError):
            remedy = (
                f"the hub refuses the token; set HF_TOKEN to a valid one ({TOKENS}), or run `hf auth login`"
            )
        elif status in (401, 403, 404):
            remedy = (
                f"the token may not write to {name} (status {status}); set HF_TOKEN to a token of the type `write` "
                f"of an account that may ({TOKENS})"
            )
        elif status in (409, 412):
            remedy = "somebody else pushed to the repository meanwhile; repeat the command"
        elif status is not None:
            remedy = f"the hub refuses the request ({one_line(error)})"
        else:
            remedy = (
                f"{endpoint()} cannot be reached ({reason_of(cause)}); check the network, HF_ENDPOINT and "
                "HTTPS_PROXY, and repeat the command"
            )
        raise ValueError(f"{where}: {remedy}") from None


@contextmanager
def _without_messages() -> Iterator[None]:
    """Suppress progress bars and messages of huggingface_hub; errors pass."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    log, was_disabled = logging.getLogger("huggingface_hub"), are_progress_bars_disabled()
    level = log.level
    log.setLevel(logging.ERROR)
    disable_progress_bars()
    try:
        yield
    finally:
        log.setLevel(level)
        if not was_disabled:
            enable_progress_bars()
