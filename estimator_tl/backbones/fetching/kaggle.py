"""Fetches modules of Kaggle Models, where tfhub.dev redirects to, with Kaggle's client if it is installed."""

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
#: Advice for models that need an account, without the client.
GET_CLIENT = "pip install 'estimator_tl[kaggle]' and log in for models that ask for an account"


def model_of(handle: str) -> str | None:
    """Returns the name that Kaggle's client has for the model at a URL; None for other URLs.

    Raises:
      UserError: the URL does not name a single model for TensorFlow.
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
    """Returns whether Kaggle's client, the package kagglehub, is installed."""
    return importlib.util.find_spec("kagglehub") is not None


def fetch(model: str) -> str:
    """Returns the folder of a model in the cache of Kaggle's client; downloads it if necessary.

    Raises:
      NotFetchedError: the model cannot be fetched.
    """
    try:
        downloads.check_reachable("www.kaggle.com")
    except OSError as network:
        try:  # the client has no time limit, but it returns a model from its cache at once
            return downloads.within(_SECONDS_WITHOUT_NETWORK, lambda: _ask_client(model), "Kaggle's client")
        except Exception:
            raise downloads.NotFetchedError(downloads.reason(network)) from network
    try:
        return _ask_client(model)
    except Exception as error:  # the client raises many kinds
        raise downloads.NotFetchedError(downloads.reason(error), answered=True) from error


def _ask_client(model: str) -> str:
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
        import kagglehub

        return str(kagglehub.model_download(model))
