"""Kinds and fields: built-in kinds by kubernetes-validate (strict, several releases), custom ones by schemas of
our own, which know the fields that we use and no others; their pod templates as built-in Pods."""

import json
import os

import jsonschema
import kubernetes_validate

from objects import name_of, pods

RELEASES = ["1.29", "1.37"]
FOLDER = os.path.join(os.path.dirname(__file__), "schemas")


def custom_schemas():
    out = {}
    for file in sorted(os.listdir(FOLDER)):
        with open(os.path.join(FOLDER, file)) as opened:
            schema = json.load(opened)
        jsonschema.Draft202012Validator.check_schema(schema)
        kind = schema["properties"]["kind"]["const"], schema["properties"]["apiVersion"]["const"]
        out[kind] = jsonschema.Draft202012Validator(schema)
    return out


CUSTOM = custom_schemas()


def strict(o):
    """What a release's schema says against a built-in object."""
    wrong = []
    for release in RELEASES:
        try:
            kubernetes_validate.validate(o, release, strict=True)
        except kubernetes_validate.ValidationError as error:
            wrong.append(f"{name_of(o)} in {release}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError:
            wrong.append(f"{name_of(o)}: {release} has no kind {o['kind']} in {o['apiVersion']}")
    return wrong


def fields_are_known(objects, _facts=None):
    wrong = []
    for o in objects:
        schema = CUSTOM.get((o["kind"], o["apiVersion"]))
        if schema is None:
            wrong += strict(o)
            continue
        wrong += [f"{name_of(o)} {error.json_path}: {error.message}" for error in schema.iter_errors(o)]
        for pod in pods([o]):
            meta = {"name": "x", **pod.template.get("metadata", {})}
            wrong += [f"{pod.where}: {w}" for w in
                      strict({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod.spec})]
    return wrong
