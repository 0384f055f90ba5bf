"""AdmissionReview in, AdmissionReview out, in the same words as validate()."""

import pytest
from trainmaster_api.validation.admission import admit
from trainmaster_api.validation.validate import Problem, format_problems, validate

from tests.unit.api.samples import ALL_EXAMPLES, job


def review(operation: str, new=None, old=None, **more):
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "u1", "operation": operation, "object": new, "oldObject": old, **more},
    }


def answer(request):
    result = admit(request)
    assert (result["apiVersion"], result["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    return result["response"]


def test_a_valid_job_is_let_in():
    assert answer(review("CREATE", job())) == {"uid": "u1", "allowed": True}


@pytest.mark.parametrize("example", ALL_EXAMPLES)
def test_a_bad_job_is_refused_in_the_words_of_validate(example):
    bad = ALL_EXAMPLES[example][1]
    response = answer(review("CREATE", bad))
    assert response["allowed"] is False
    assert response["status"]["code"] == 422
    assert response["status"]["message"] == f"the TrainingJob has 1 problem:\n{format_problems(validate(bad)[1])}"


def test_all_problems_of_a_change_are_named():
    new = job({"spec.training.loop.seed": 3, "spec.run.stallSeconds": 1})
    message = answer(review("UPDATE", new, job()))["status"]["message"]
    assert "2 problems" in message
    assert "spec.training: is immutable, because the checkpoints of this run belong to it" in message
    assert "spec.run.stallSeconds = 1: must be an integer of at least 10" in message


@pytest.mark.parametrize("example", ALL_EXAMPLES)
def test_a_job_of_an_older_version_can_still_be_suspended(example):
    bad = ALL_EXAMPLES[example][1]
    suspended = {**bad, "spec": {**bad["spec"], "run": {"suspend": True}}}
    assert answer(review("UPDATE", suspended, bad))["allowed"] is True


def test_labels_status_and_deletion_are_no_concern_of_ours():
    assert answer(review("UPDATE", job({"metadata.labels": {"a": "b"}}), job()))["allowed"]
    assert answer(review("UPDATE", job({"spec.foo": 1}), job(), subResource="status"))["allowed"]
    assert answer(review("DELETE", None, job()))["allowed"]


@pytest.mark.parametrize("request_", [None, {}, {"request": None}, [], "x"])
def test_what_is_no_review_is_refused(request_):
    assert answer(request_)["allowed"] is False


@pytest.mark.parametrize(("new", "old"), [(None, None), (job(), None), (None, job()), ("x", [])])
def test_odd_objects_never_raise(new, old):
    assert isinstance(answer(review("UPDATE", new, old))["allowed"], bool)


def test_checks_of_the_operators_own_are_asked_too():
    def more(job):
        return [Problem("spec.x", "is not allowed here")] if job["spec"].get("run", {}).get("suspend") else []

    good, bad = job(), job({"spec.run.suspend": True})
    assert admit(review("CREATE", good), more)["response"]["allowed"]
    refused = admit(review("CREATE", bad), more)["response"]
    assert "spec.x: is not allowed here" in refused["status"]["message"]
    assert not admit(review("UPDATE", bad, good), more)["response"]["allowed"]
    # a job that was accepted by an operator that allowed it can still be edited
    assert admit(review("UPDATE", job({"spec.run.suspend": True, "spec.checkpoint.keep": 9}), bad), more)["response"][
        "allowed"
    ]
