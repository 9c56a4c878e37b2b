"""Messages of user errors."""

from __future__ import annotations

import pytest

from estimator_tl.errors import SOURCE, UserError, about


class KindOfError(UserError):
    pass


def test_an_error_about_a_source_names_it_wherever_it_stands():
    with pytest.raises(KindOfError) as error, about("m.h5"), about(f"'inner' of {SOURCE}"):
        raise KindOfError(f"layer 'a' of {SOURCE} ends; leave it out.")
    assert str(error.value) == "layer 'a' of 'inner' of m.h5 ends; leave it out."


def test_a_quoted_source_is_quoted_as_python_does():
    with pytest.raises(UserError) as error, about("it's/m"):
        raise UserError(f"{SOURCE} takes token ids; write text_encoder({SOURCE!r}, vocab='vocab.txt').")
    assert str(error.value) == "it's/m takes token ids; write text_encoder(\"it's/m\", vocab='vocab.txt')."


def test_the_first_source_around_an_error_is_the_one_that_it_names():
    with pytest.raises(UserError) as error, about("encoder"), about("preprocessing"):
        raise UserError(f"{SOURCE} is damaged; get it again.")
    assert str(error.value) == "preprocessing is damaged; get it again."
