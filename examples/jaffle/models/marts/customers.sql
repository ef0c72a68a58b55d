with ordered as (
    select
        customer_id,
        min(order_date) as first_order,
        max(order_date) as most_recent_order,
        count(*) as number_of_orders
    from {{ ref('stg_orders') }}
    group by customer_id
),

spent as (
    select
        orders.customer_id,
        sum(payments.amount) as customer_lifetime_value
    from {{ ref('stg_payments') }} as payments
    inner join {{ ref('stg_orders') }} as orders using (order_id)
    group by orders.customer_id
)

select
    customers.customer_id,
    customers.first_name,
    customers.last_name,
    ordered.first_order,
    ordered.most_recent_order,
    ordered.number_of_orders,
    spent.customer_lifetime_value
from {{ ref('stg_customers') }} as customers
left join ordered using (customer_id)
left join spent using (customer_id)
