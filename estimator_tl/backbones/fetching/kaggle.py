"""Kaggle Models, where tfhub.dev leads today: through Kaggle's own client where it is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import urllib.parse

from estimator_tl.backbones.fetching import downloads
from estimator_tl.errors import UserError

_HOSTS = ("www.kaggle.com", "kaggle.com")
_FRAMEWORKS = {name.lower(): name for name in ("tensorFlow1", "tensorFlow2")}
_FORM = "https://www.kaggle.com/models/OWNER/MODEL/tensorFlow2/VARIATION/VERSION"
_SECONDS_WITHOUT_NETWORK = 10.0
#: What to do where a model asks for an account and the client is missing.
GET_CLIENT = "pip install 'estimator_tl[kaggle]' and log in for models that ask for an account"


def model_of(handle: str) -> str | None:
    """Returns the name of a model of Kaggle Models as Kaggle's client has it; None for addresses of other things.

    Raises:
      UserError: the address names no single model of TensorFlow.
    """
    parts = urllib.parse.urlsplit(handle)
    names = parts.path.strip("/").split("/")
    if parts.hostname not in _HOSTS or names[0] != "models":
        return None
    names = names[1:]
    if names[2::2] in (["frameworks", "variations"], ["frameworks", "variations", "versions"]):  # the longer form
        names = [*names[:2], *names[3::2]]
    if len(names) not in (4, 5) or not all(names) or not "".join(names[4:] or "1").isdigit():
        raise UserError(f"{handle} is not the address of one model; its form is {_FORM}.")
    if names[2].lower() not in _FRAMEWORKS:
        raise UserError(f"{handle} is a model for {names[2]}; choose a variation for tensorFlow2 or tensorFlow1.")
    names[2] = _FRAMEWORKS[names[2].lower()]
    return "/".join(names)


def has_client() -> bool:
    """True where Kaggle's client, the package kagglehub, is installed."""
    return importlib.util.find_spec("kagglehub") is not None


def fetch(model: str) -> str:
    """Returns the folder of a model in the client's own cache, downloaded if need be.

    Raises:
      NotFetchedError: it cannot be had.
    """
    try:
        downloads.check_reachable("www.kaggle.com")
    except OSError as network:
        try:  # the client sets no limit to its attempts; what it has already, it gives at once
            return downloads.within(_SECONDS_WITHOUT_NETWORK, lambda: _ask_client(model), "Kaggle's client")
        except Exception:
            raise downloads.NotFetchedError(downloads.reason(network)) from network
    try:
        return _ask_client(model)
    except Exception as error:  # the client's are of many kinds
        raise downloads.NotFetchedError(downloads.reason(error), answered=True) from error


def _ask_client(model: str) -> str:
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
        import kagglehub

        return str(kagglehub.model_download(model))
