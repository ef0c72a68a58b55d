{% set methods = ['credit_card', 'coupon', 'bank_transfer', 'gift_card'] %}

with paid as (
    select
        order_id,
        {% for method in methods -%}
        coalesce(sum(amount) filter (payment_method = '{{ method }}'), 0) as {{ method }}_amount,
        {% endfor -%}
        sum(amount) as amount
    from {{ ref('stg_payments') }}
    group by order_id
)

select
    orders.order_id,
    orders.customer_id,
    orders.order_date,
    orders.status,
    {% for method in methods -%}
    paid.{{ method }}_amount,
    {% endfor -%}
    paid.amount
from {{ ref('stg_orders') }} as orders
left join paid using (order_id)
