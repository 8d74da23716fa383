"""What `VaultSecretsResource` is given: names, types, sources, and what its errors do not say."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from strongroom_dagster import (
    ConfigurationError,
    FakeVaultSecretsResource,
    Settings,
    StrongroomError,
    VaultSecretsResource,
)

SECRET = "s3cr3t-2b4c-SUPER"
ARGUMENTS = ("secret_id", "wrapped_secret_id", "token", "jwt")
NAMES = tuple(f"{argument}_variable" for argument in ARGUMENTS)
FIELDS = {field.alias or name: field for name, field in VaultSecretsResource.model_fields.items()}
TEXTS = [name for name, field in FIELDS.items() if "str" in str(field.annotation)]
TEXTS.remove("from_variables")
NUMBERS = [name for name, field in FIELDS.items() if field.annotation in (int, float)]

# For values of any type.
resource: Callable[..., VaultSecretsResource] = VaultSecretsResource
fake: Callable[..., FakeVaultSecretsResource] = FakeVaultSecretsResource


def everything_said(error: BaseException) -> str:
    """The error with its causes and contexts, as Dagster's event log has it."""
    return "".join(traceback.format_exception(error)) + repr(error)


# --- row 1: a credential in the wrong place ----------------------------------------------------


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_a_literal_credential_is_refused(argument: str) -> None:
    with pytest.raises(ConfigurationError, match="would be shown in the Dagster UI") as caught:
        resource(role_id="r", **{argument: SECRET})
    assert SECRET not in everything_said(caught.value)


@pytest.mark.parametrize("field", NAMES)
def test_an_env_var_is_refused_where_a_name_is_wanted(field: str) -> None:
    """Dagster would put the variable's value, the secret, where its name belongs."""
    with pytest.raises(ConfigurationError, match=f"{field}: takes the name"):
        resource(role_id="r", **{field: dg.EnvVar("VAULT_SECRET_ID")})


@pytest.mark.parametrize("field", NAMES)
@pytest.mark.parametrize(
    "name", ["", "1A", "A-B", "A B", "A=B", "Ä", "A\n", "A.B", SECRET, 5, b"A"]
)
def test_what_is_no_name_of_a_variable_is_refused(field: str, name: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{field}: takes the name") as caught:
        resource(role_id="r", **{field: name})
    assert SECRET not in everything_said(caught.value)


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_the_value_in_an_env_var_is_refused_in_place_of_its_name(argument: str) -> None:
    with pytest.raises(ConfigurationError, match="takes the name") as caught:
        resource(role_id="r", **{argument: dg.EnvVar(SECRET)})
    assert SECRET not in everything_said(caught.value)


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_an_env_var_is_kept_by_name_only(argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_VARIABLE", SECRET)
    given = resource(role_id="r", **{argument: dg.EnvVar("THE_VARIABLE")})
    assert getattr(given, f"{argument}_variable") == "THE_VARIABLE"
    assert SECRET not in repr(given) + given.model_dump_json()


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_a_value_of_a_wrong_type_is_refused_and_not_quoted(field: str) -> None:
    class Odd:
        def __repr__(self) -> str:
            return SECRET

    for wrong in (Odd(), [SECRET], {SECRET: SECRET}, {SECRET}, SECRET.encode()):
        with pytest.raises(ConfigurationError) as caught:
            resource(token_file="/t", **{field: wrong}) if field != "token_file" else resource(
                token_file=wrong
            )
        assert SECRET not in everything_said(caught.value)


@pytest.mark.skipif(not hasattr(dg.Field(str), "is_secret"), reason="this Dagster masks no field")
@pytest.mark.parametrize("field", [*NAMES, "secret_id_file", "token_file", "jwt_file", "proxy",
                                   "role_id", "client_key", "kubernetes_jwt_file"])  # fmt: skip
def test_fields_where_a_secret_may_land_are_secret_for_dagster(field: str) -> None:
    schema = VaultSecretsResource.to_fields_dict()
    assert schema[field].is_secret
    assert SECRET not in repr(resource(**{field: "PLAIN"})).replace("PLAIN", SECRET)


def test_run_config_cannot_hold_a_secret_id() -> None:
    @dg.op
    def nothing(vault: VaultSecretsResource) -> None:
        pass

    @dg.job(resource_defs={"vault": VaultSecretsResource.configure_at_launch()})
    def job() -> None:
        nothing()

    config = {"resources": {"vault": {"config": {"role_id": "r", "secret_id": SECRET}}}}
    with pytest.raises(dg.DagsterInvalidConfigError) as caught:
        job.execute_in_process(run_config=config)
    assert 'unexpected config entry "secret_id"' in str(caught.value).lower()


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_configure_at_launch_takes_credentials_by_name(argument: str) -> None:
    partial = VaultSecretsResource.configure_at_launch(**{argument: dg.EnvVar("THE_VARIABLE")})
    assert partial.data == {f"{argument}_variable": "THE_VARIABLE"}
    with pytest.raises(ConfigurationError, match="would be shown") as caught:
        VaultSecretsResource.configure_at_launch(**{argument: SECRET})
    assert SECRET not in everything_said(caught.value)


@pytest.mark.parametrize(
    "address", ["https://user:s3cr3t@h", "https://s3cr3t@h", "unix://s3cr3t@/v"]
)
def test_an_address_with_a_user_is_refused_as_a_literal(address: str) -> None:
    for make in (VaultSecretsResource, VaultSecretsResource.configure_at_launch):
        with pytest.raises(ConfigurationError, match="must not hold a user") as caught:
            make(token_file="/t", address=address)
        assert "s3cr3t" not in everything_said(caught.value)


# --- row 30: the proxy's password --------------------------------------------------------------


@pytest.mark.parametrize(
    "proxy", ["http://user:pw@p:1", "http://user@p", "socks5://u:p@h", "u:p@h"]
)
def test_a_proxy_with_a_password_is_refused_as_a_literal(proxy: str) -> None:
    with pytest.raises(ConfigurationError, match="shown in the Dagster UI") as caught:
        VaultSecretsResource(token_file="/t", proxy=proxy)
    assert proxy not in everything_said(caught.value)


def test_a_proxy_with_a_password_comes_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_PROXY", f"http://user:{SECRET}@127.0.0.1:1")
    given = VaultSecretsResource(token_file="/t", proxy=dg.EnvVar("THE_PROXY"))
    assert given.proxy is None
    assert SECRET not in repr(given) + given.model_dump_json()
    with given.process_config_and_initialize_cm() as vault:
        assert vault.client.settings.proxy == f"http://user:{SECRET}@127.0.0.1:1"
        assert SECRET not in repr(vault)


# --- rows 20 and 23: the signature -------------------------------------------------------------


@pytest.mark.parametrize("field", sorted({*FIELDS, *ARGUMENTS}))
def test_a_typo_is_an_error_with_a_suggestion(field: str) -> None:
    typo = field[:2] + field[3:] if len(field) > 4 else field + "x"
    with pytest.raises(ConfigurationError) as caught:
        resource(**{typo: "x"})
    (meant,) = difflib.get_close_matches(typo, [*FIELDS, *ARGUMENTS], 1)
    assert str(caught.value) == f'unknown field "{typo}" (did you mean "{meant}"?)'


def test_a_typo_is_an_error_in_the_fake_and_at_launch_too() -> None:
    for make in (FakeVaultSecretsResource, VaultSecretsResource.configure_at_launch):
        with pytest.raises(ConfigurationError, match="did you mean"):
            make(adress="https://x")  # type: ignore[call-arg]


def test_the_signature_names_every_field() -> None:
    names = inspect.signature(VaultSecretsResource).parameters
    assert set(names) == {*FIELDS, *ARGUMENTS}
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in names.values())


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("value", ["60", "abc", True, None, float])
def test_a_number_is_a_number(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{field}: must be"):
        resource(token_file="/t", **{field: value})


@pytest.mark.parametrize("field", [name for name in TEXTS if name != "proxy"])
@pytest.mark.parametrize(
    "value",
    [5, 1.5, True, b"x", Path("/x"), dg.EnvVar.int("X")],
    ids=["int", "float", "bool", "bytes", "Path", "EnvVar.int"],
)
def test_a_text_is_a_text(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{field}: "):
        resource(**{field: value})


def test_every_setting_is_a_field_with_the_same_default() -> None:
    fields = {
        name: field.default
        for name, field in FIELDS.items()
        if name in {setting.name for setting in dataclasses.fields(Settings)}
    }
    assert fields == {setting.name: setting.default for setting in dataclasses.fields(Settings)}


def test_every_field_reaches_the_settings(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    given: dict[str, Any] = {"address": "https://x"}
    for setting in dataclasses.fields(Settings):
        if isinstance(setting.default, bool):
            given[setting.name] = not setting.default
        elif isinstance(setting.default, (int, float)):
            given[setting.name] = setting.default + 7
        elif setting.name in ("ca_bundle", "client_certificate", "client_key"):
            given[setting.name] = str(tmp_path / "file")
        elif setting.name == "proxy":
            given[setting.name] = "http://proxy:1"
        elif setting.name != "address":
            given[setting.name] = "other"
    assert dataclasses.asdict(fake(**given)._settings()) == given


def test_every_field_is_described_with_its_unit() -> None:
    schema = VaultSecretsResource.to_fields_dict()
    assert set(schema) == set(FIELDS)
    for name, field in schema.items():
        assert field.description, name
        if FIELDS[name].annotation is float:
            assert "seconds" in field.description, name
        if FIELDS[name].annotation is int:
            assert field.description.startswith(("number of", "bytes of")), name


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "0 ways to log in"),
        ({"role_id": "r"}, "0 sources for the secret id"),
        ({"role_id": "r", "secret_id_file": "/f", "secret_id_variable": "V"}, "2 sources"),
        ({"role_id": "r", "secret_id_file": "/f", "wrapped_secret_id_file": "/w"}, "2 sources"),
        ({"role_id": "r", "secret_id_file": "/f", "token_file": "/t"}, "2 ways to log in"),
        ({"jwt_role": "r", "jwt_file": "/f", "jwt_variable": "V"}, "2 sources for the JWT"),
        ({"token_file": "/t", "address": "nowhere"}, "must start with https"),
    ],
)
def test_a_faulty_configuration_fails_before_anything_runs(
    values: dict[str, Any], words: str
) -> None:
    @dg.asset
    def never(vault: VaultSecretsResource) -> None:
        raise AssertionError("it ran")

    with pytest.raises(Exception, match="vault") as caught:
        dg.materialize([never], resources={"vault": resource(**values)})
    assert words in everything_said(caught.value)


# --- row 23: EnvVar ----------------------------------------------------------------------------


@pytest.mark.parametrize("variable", [dg.EnvVar("N"), dg.EnvVar.int("N")], ids=["EnvVar", "int"])
@pytest.mark.parametrize("field", NUMBERS)
def test_a_number_comes_from_a_variable(
    field: str, variable: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("N", "17" if FIELDS[field].annotation is int else "2.5")
    given = fake(**{field: variable})
    assert getattr(given._settings(), field) in (17, 2.5)
    for wrong in ("", " ", f"{SECRET}", "5s", "-1", "nan"):
        monkeypatch.setenv("N", wrong)
        with pytest.raises(ConfigurationError, match=f"^{field}: ") as caught:
            given._settings()
        assert SECRET not in everything_said(caught.value)


def test_a_number_from_a_variable_reaches_the_client_of_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("N", "2.5")
    given = FakeVaultSecretsResource(kv_ttl=dg.EnvVar("N"))
    with given.process_config_and_initialize_cm() as vault:
        assert vault.client.settings.kv_ttl == 2.5


@pytest.mark.parametrize("field", [name for name in TEXTS if name not in (*NAMES, "proxy")])
def test_a_read_with_an_unresolved_env_var_says_so(field: str) -> None:
    given = fake(**{field: dg.EnvVar("THE_VARIABLE")})
    with pytest.raises(ConfigurationError, match="an EnvVar that Dagster has not resolved"):
        given.get("anything")
    assert issubclass(ConfigurationError, StrongroomError)


def test_the_fields_are_json_for_dagster() -> None:
    json.loads(FakeVaultSecretsResource(kv_ttl=dg.EnvVar("N")).model_dump_json())
