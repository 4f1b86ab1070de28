SELECT id, embed(body)::FLOAT[384] AS vector
FROM {{ ref('tickets') }}
