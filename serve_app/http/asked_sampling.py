"""How the answer to a request is sampled: as the recipe says, changed by what the request asks for."""

from configs.errors import BadRequest
from configs.schema import Recipe, Sampling
from serve_app.access.api_keys import Key
from serve_app.http.request import ChatRequest


def asked_sampling(request: ChatRequest, recipe: Recipe, key: Key) -> Sampling:
    """The sampling of the answer: the request's, within the allowance of the key.

    The recipe's sampling of the aggregator counts for the mixture, and for the aggregator's model where
    the model answers in place of the mixture.

    Raises:
        BadRequest: the request asks for more tokens than the key may ask for, or than the model that
            answers holds, or a sampling parameter is outside of what a recipe allows.
    """
    aggregator = recipe.aggregator
    model = aggregator.model if request.answers == recipe.name else request.answers
    is_aggregator = request.model == recipe.name and model == aggregator.model
    base = aggregator.sampling if is_aggregator else Sampling()
    limit = key.allowance.max_tokens
    if limit is not None:
        base = base.model_copy(update={"max_tokens": min(base.answer_tokens, limit)})
    sampling = request.sampling(base, recipe.settings(model).engine)
    if limit is not None and sampling.answer_tokens > limit:
        message = (
            f"max_tokens is {sampling.answer_tokens}; key {key.name!r} may ask for {limit} at most"
        )
        raise BadRequest(message, param="max_tokens")
    if limit is not None and request.thinking_token_budget is not None and sampling.most_tokens > limit:
        message = (
            f"max_tokens and thinking_token_budget are {sampling.most_tokens} together; key "
            f"{key.name!r} may ask for {limit} at most"
        )
        raise BadRequest(message, param="thinking_token_budget")
    context = recipe.settings(model).context_tokens
    if (param := request.limit_param) is not None and sampling.most_tokens >= context:
        # In OpenAI's words, and not in those of an overflow: no shorter conversation would help.
        message = (
            f"{param} is too large: {sampling.most_tokens}. This model supports at most "
            f"{context - 1} completion tokens, because model {model!r} holds {context} tokens"
        )
        raise BadRequest(message, param=param, model=model)
    return sampling
